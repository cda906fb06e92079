"""`sightline label`: people compare two answers, mark what is not in the picture, and grade; saved row by row."""
