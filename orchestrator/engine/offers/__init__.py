"""The road out: who may be offered the release now, its signed trigger, and the two ways it leaves."""
