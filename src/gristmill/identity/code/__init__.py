"""Identity of code: what `gristmill.identity.fingerprint` is made of."""
