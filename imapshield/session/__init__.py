"""IMAP sessions: commands are executed over `mailbox.account_api`, without Twisted and without files.

The modules import each other in one direction only: connection, states < command_spec < state < fetch_responses,
background < the parts of a session (capabilities, new_messages, search_contexts, notifications, …) < session <
handlers < table < dispatcher.
"""
