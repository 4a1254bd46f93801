"""How fast and when: slots, ceilings, ramps, windows, requirements, further attempts."""
