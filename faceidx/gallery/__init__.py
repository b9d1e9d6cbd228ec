"""The gallery: known faces in a FAISS cosine index, who is nearest, and when to say unknown."""
