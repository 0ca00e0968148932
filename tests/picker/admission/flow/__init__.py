"""Tests of picker.admission.flow."""
