"""What is said in tables and sentences, the same in every page and in the terminal."""
