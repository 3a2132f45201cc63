"""Several models' predictions become one, evaluated on rows that nothing was fitted on."""
