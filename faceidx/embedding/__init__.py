"""From pictures to a file of embeddings: the batch inference pipeline and the HDF5 store."""
