"""What people and machines are shown, and why it is so. Nothing here changes anything."""
