"""Mixtures of two speakers with an enrolment, from a corpus that is cut and measured when a mixture is rendered."""
