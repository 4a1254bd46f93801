"""What templates show, from the views of the engine. Pure functions: one file for each page."""
