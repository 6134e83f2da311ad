"""Who is it, and what is theirs: password files, their checker, and the realm of Maildirs."""
