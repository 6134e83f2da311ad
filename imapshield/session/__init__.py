"""IMAP sessions: they execute commands by means of `mailbox.account_api`, without Twisted and without files.

The modules import each other in one direction only: connection < state < background, command_spec, fetch_responses,
mailbox_names < the parts of a session (capabilities, new_messages, search_contexts, notifications, …) < session <
handlers < table < dispatcher.
"""
