"""For tests of programs that embed or extend imapshield."""
