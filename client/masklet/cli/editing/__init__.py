"""What editors ask of `masklet track`: ranges, directions, corrections, names, files of prompts."""
