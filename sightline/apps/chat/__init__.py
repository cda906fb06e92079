"""`sightline chat`: one model or two beside each other, asked about a picture; a preference is kept at a click."""
