"""How masklet-nano is made: samples, training, export and evaluation. See README.md here."""
