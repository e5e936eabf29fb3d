"""Results of a project in other formats, made in a process of their own."""
