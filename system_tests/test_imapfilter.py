"""imapfilter: searches, flags, copies, moves and deletes by scripts in Lua, which let the server do every search."""

from __future__ import annotations

from system_tests.maildirs import deliver, flags_by_subject, small_message
from system_tests.server_case import PASSWORD, USER, ServerCase, find_program


class ImapfilterTests(ServerCase):
    def run_script(self, text: str) -> None:
        """Run a script; its function `check` ends the program with status 1 if its last two arguments differ."""
        head = f"""\
options.timeout = 60
options.create = true
options.subscribe = true
options.expunge = true
options.starttls = false
account = IMAP {{ server = '127.0.0.1', port = {self.port}, username = '{USER}', password = '{PASSWORD}' }}
function check(name, got, expected)
    if got ~= expected then
        io.stderr:write(name .. ': got ' .. tostring(got) .. ', not ' .. tostring(expected) .. '\\n')
        os.exit(1)
    end
end
"""
        config = self.write_home_file("config.lua", head + text)
        self.run_client(find_program("imapfilter", "imapfilter"), "-v", "-c", config)

    def test_messages_found_by_searches_are_changed_on_disk(self) -> None:
        """Searches of every kind find the right messages, and changes to the messages found are on disk."""
        for subject in ("invoice 1", "invoice 2", "newsletter", "spam", "hello"):
            deliver(self.maildir(), small_message(subject))
        self.run_script("""
local box = account.INBOX
local exist, recent, unseen, next = box:check_status()
check('exist', exist, 5)
check('unseen', unseen, 5)
check('subject', #box:contain_subject('invoice'), 2)
check('match', #box:match_subject('^.nvoice [0-9]'), 2)
check('from', #box:contain_from('bob@example.org'), 5)
check('body', #box:contain_body('hello'), 5)
check('smaller', #box:is_smaller(100000), 5)
check('older', #box:is_older(1), 0)
check('set', #(box:contain_subject('invoice') + box:contain_subject('spam')), 3)
box:contain_subject('invoice'):mark_flagged()
box:contain_subject('invoice 1'):mark_seen()
box:contain_subject('invoice'):copy_messages(account['Invoices/2025'])
box:contain_subject('newsletter'):move_messages(account['Köln'])
box:contain_subject('spam'):delete_messages()
box:contain_subject('hello'):add_flags({ 'Checked' })
check('flagged', #box:is_flagged(), 2)
check('keyword', #box:has_keyword('Checked'), 1)
check('left', #box:select_all(), 3)
""")
        self.assertEqual(
            flags_by_subject(self.maildir()) | {b"hello": ""},
            {b"invoice 1": "FS", b"invoice 2": "F", b"hello": ""},
        )
        self.assertEqual(
            flags_by_subject(self.maildir(".Invoices.2025")),
            {b"invoice 1": "FS", b"invoice 2": "F"},
        )
        # imapfilter encodes mailbox names in UTF-7 itself: options.charset does not apply to them.
        self.assertIn(b"newsletter", flags_by_subject(self.maildir(".K&APY-ln")))

    def test_folders_are_created_subscribed_renamed_and_deleted(self) -> None:
        """Folders are created, subscribed, renamed, listed and deleted."""
        self.run_script("""
check('create', account:create_mailbox('Work'), true)
check('subscribe', account:subscribe_mailbox('Work'), true)
check('rename', account:rename_mailbox('Work', 'Play'), true)
local boxes, folders = account:list_all()
local names = table.concat(boxes, ' ')
check('list', names:find('Play') ~= nil and names:find('Work') == nil, true)
check('delete', account:delete_mailbox('Play'), true)
""")

    def test_parts_and_attributes_are_fetched_correctly(self) -> None:
        """Headers, bodies, sizes, dates and structures are fetched correctly."""
        deliver(self.maildir(), small_message("one"))
        self.run_script("""
local results = account.INBOX:select_all()
for _, message in ipairs(results) do
    local box, uid = table.unpack(message)
    check('subject', box[uid]:fetch_field('subject'), 'Subject: one')
    check('body', box[uid]:fetch_body(), 'hello\\r\\n')
    check('size', box[uid]:fetch_size() > 100, true)
    check('date', #box[uid]:fetch_date() > 20, true)
    check('structure', box[uid]:fetch_structure()['1']['type'], 'text/plain')
end
check('one', #results, 1)
""")

    def test_enter_idle_returns_when_mail_arrives(self) -> None:
        """enter_idle returns when mail arrives."""
        # imapfilter has no hook that runs within IDLE: the agent waits until IDLE has begun.
        agent = self.write_home_file(
            "late",
            f"#!/bin/sh\n(sleep 0.5; printf 'Subject: late\\n\\nx\\n' >{self.maildir()}/tmp/late\n"
            f"mv {self.maildir()}/tmp/late {self.maildir()}/new/1800000000.late.host) >/dev/null 2>&1 &\n",
            0o700,
        )
        self.login().select()
        self.run_script(f"""
os.execute('{agent}')
local woken, event = account.INBOX:enter_idle()
check('woken', woken, true)
check('event', event, 'EXISTS')
check('there', #account.INBOX:contain_subject('late'), 1)
""")
