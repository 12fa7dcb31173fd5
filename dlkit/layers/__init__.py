"""What several papers share: initializers, norms, dropout, recurrent cells."""
