"""What runs packagings, behind one small protocol."""
