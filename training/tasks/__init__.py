"""Clinical questions: for each, how its examples, its network and its loss are made, and how it is judged."""
