"""The public surface of `import sightline`: stages as functions, their results, registration of your own parts."""
