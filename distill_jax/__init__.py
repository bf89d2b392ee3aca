"""Teacher-student training in JAX: a distillation method is a record of pure functions, and one train step serves them all."""
