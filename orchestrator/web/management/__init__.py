"""hawkBit's Management API, the part that tools around its clients use: an adapter over our own engine."""
