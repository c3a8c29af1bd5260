"""The local stability condition: transitions, radii, targets, theory and reports."""
