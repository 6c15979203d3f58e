"""Where the stand-in for SGLang is."""
