-- What the index remembers of one account. The mail itself is in the Maildir; of what is lost here only UIDs are missed.
-- user_version counts changes of this file; index.py brings older databases up to it.

CREATE TABLE account (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    uidvalidity INTEGER NOT NULL,           -- the last one given to any mailbox; never goes back
    boot TEXT NOT NULL,                     -- which start of the machine wrote here last
    octets INTEGER NOT NULL DEFAULT 0,      -- of all message files; the triggers below keep both
    messages INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE mailbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,   -- sessions hold it, so it is never used again
    name TEXT NOT NULL UNIQUE,
    uidvalidity INTEGER NOT NULL,
    uidnext INTEGER NOT NULL DEFAULT 1,
    highestmodseq INTEGER NOT NULL DEFAULT 1,
    recentuid INTEGER NOT NULL DEFAULT 0,   -- up to here \Recent was told to somebody
    mailbox_id BLOB NOT NULL,
    special_use BLOB NOT NULL DEFAULT x'',
    keywords BLOB NOT NULL DEFAULT x'',     -- those that found no letter in dovecot-keywords
    floor INTEGER NOT NULL DEFAULT 0,       -- the log of expunged messages is complete after this modseq
    logged INTEGER NOT NULL DEFAULT 0,      -- how many entries that log has
    cur_mtime INTEGER NOT NULL DEFAULT 0,   -- nanoseconds, of the directory, when it was last read
    cur_ino INTEGER NOT NULL DEFAULT 0,
    new_mtime INTEGER NOT NULL DEFAULT 0,
    new_ino INTEGER NOT NULL DEFAULT 0,
    hot INTEGER NOT NULL DEFAULT 0,         -- 1: cur_mtime was too young to be trusted; 2: new_mtime was
    scanned REAL NOT NULL DEFAULT 0         -- when both directories were last read
);

CREATE TABLE message (
    mailbox INTEGER NOT NULL,
    uid INTEGER NOT NULL,
    name BLOB NOT NULL,                     -- of the file
    place INTEGER NOT NULL,                 -- 0: cur, 1: new
    flags BLOB NOT NULL,                    -- as sent: \Answered \Flagged \Deleted \Seen \Draft, keywords
    modseq INTEGER NOT NULL,
    size INTEGER,                           -- as on the wire; NULL until measured
    physical INTEGER NOT NULL,
    internaldate INTEGER NOT NULL,
    saved INTEGER NOT NULL,
    email_id BLOB NOT NULL,
    PRIMARY KEY (mailbox, uid)
) WITHOUT ROWID;

CREATE INDEX message_modseq ON message (mailbox, modseq);
CREATE INDEX message_new ON message (mailbox) WHERE place = 1;
CREATE INDEX message_unmeasured ON message (mailbox) WHERE size IS NULL;

CREATE TABLE expunged (
    mailbox INTEGER NOT NULL,
    modseq INTEGER NOT NULL,
    uid INTEGER NOT NULL,
    PRIMARY KEY (mailbox, modseq, uid)
) WITHOUT ROWID;

CREATE TABLE item (                         -- what answers are kept for: FETCH items, ?ENVELOPE FIELD and the like for SEARCH
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    text BLOB NOT NULL UNIQUE,
    used INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE answer (                       -- ready to send; a row here implies one in message
    mailbox INTEGER NOT NULL,
    item INTEGER NOT NULL,
    uid INTEGER NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (mailbox, item, uid)
) WITHOUT ROWID;

CREATE TABLE metadata (                     -- RFC 5464; mailbox 0 is the account itself
    mailbox INTEGER NOT NULL,
    entry BLOB NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (mailbox, entry)
) WITHOUT ROWID;

CREATE TRIGGER message_came AFTER INSERT ON message BEGIN
    UPDATE account SET octets = octets + new.physical, messages = messages + 1;
END;

CREATE TRIGGER message_went AFTER DELETE ON message BEGIN
    UPDATE account SET octets = octets - old.physical, messages = messages - 1;
END;
