"""Generated volumes: the sample data, and the clips that train the bundled model."""
