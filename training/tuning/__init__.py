"""The weight of the derivative penalty, chosen along the front of accuracy and sensitivity."""
