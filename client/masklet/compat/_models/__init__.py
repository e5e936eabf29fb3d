"""Which model, on which server: what programs name, and what stands for sam2's network."""
