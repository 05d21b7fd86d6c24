"""What needs no trained dictionary: principal components and centroids, tables of n-grams, names of clusters."""
