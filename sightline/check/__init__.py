"""What is wrong with a dataset of pairs, before anybody trains on it: found, counted, and, where wanted, taken out."""
