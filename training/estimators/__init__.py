"""ChainzRule networks as scikit-learn estimators."""
