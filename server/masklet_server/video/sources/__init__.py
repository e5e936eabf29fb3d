"""Where frames come from, as a session sees it: a clip, pictures, packets."""
