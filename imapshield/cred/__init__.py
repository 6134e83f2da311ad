"""Authentication and accounts: password files, their checker, SASL mechanisms, and the realm of Maildirs."""
