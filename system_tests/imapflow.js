// Uses most functions of npm's imapflow against one server: node imapflow.js PORT USER PASSWORD MAILDIR
'use strict';
const assert = require('node:assert');
const fs = require('node:fs');
const { ImapFlow } = require('imapflow');

const [port, user, pass, maildir] = process.argv.slice(2);
const message = subject => Buffer.from(`Subject: ${subject}\r\nFrom: bob@example.org\r\n\r\nhello\r\n`);
const options = { host: '127.0.0.1', port: Number(port), secure: false, auth: { user, pass }, logger: false };

async function main() {
    const client = new ImapFlow(options);
    await client.connect();

    // Folders, with a name that is not ASCII.
    await client.mailboxCreate('Kept');
    await client.mailboxCreate(['Work', 'Köln']);
    await client.mailboxSubscribe('Kept');
    const boxes = await client.list({ statusQuery: { messages: true } });
    const special = ['Archive', 'Drafts', 'Junk', 'Sent', 'Trash'];
    const listed = boxes.map(box => box.path);
    assert.deepStrictEqual(listed.sort(), ['INBOX', 'Kept', 'Work', 'Work/Köln', ...special].sort());
    for (const name of special) {
        assert.strictEqual(boxes.find(box => box.path === name).specialUse, `\\${name}`);
    }
    await client.mailboxRename(['Work', 'Köln'], 'Bonn');
    assert.ok(!(await client.list()).some(box => box.path === 'Work/Köln'));

    // Append with flags and a date.
    const when = new Date('2025-01-01T10:00:00Z');
    for (const subject of ['a', 'b', 'c', 'd', 'e', 'f']) {
        const appended = await client.append('INBOX', message(subject), subject === 'a' ? ['\\Flagged'] : [], when);
        assert.ok(appended.uid && appended.uidValidity, 'no APPENDUID');
    }
    const status = await client.status('INBOX', { messages: true, unseen: true, uidNext: true, uidValidity: true });
    assert.deepStrictEqual([status.messages, status.unseen, status.uidNext], [6, 6, 7]);

    const lock = await client.getMailboxLock('INBOX');
    try {
        const second = await client.fetchOne('2', { source: true, envelope: true, bodyStructure: true, flags: true, internalDate: true });
        assert.deepStrictEqual(second.source, message('b'));
        assert.strictEqual(second.envelope.subject, 'b');
        assert.strictEqual(second.bodyStructure.type, 'text/plain');
        assert.strictEqual(second.internalDate.getTime(), when.getTime());
        const subjects = [];
        for await (const message of client.fetch('1:*', { envelope: true, headers: ['subject'] })) {
            assert.strictEqual(message.headers.toString().trim(), `Subject: ${message.envelope.subject}`);
            subjects.push(message.envelope.subject);
        }
        assert.deepStrictEqual(subjects, ['a', 'b', 'c', 'd', 'e', 'f']);
        const { content } = await client.download('3', 'TEXT');
        const chunks = [];
        for await (const chunk of content) chunks.push(chunk);
        assert.strictEqual(Buffer.concat(chunks).toString(), 'hello\r\n');

        assert.deepStrictEqual(await client.search({ subject: 'c' }, { uid: true }), [3]);
        assert.deepStrictEqual(await client.search({ or: [{ flagged: true }, { subject: 'f' }] }), [1, 6]);
        assert.deepStrictEqual(await client.search({ before: new Date('2001-01-01') }), []);

        await client.messageFlagsAdd('2:3', ['\\Seen', '$Mine']);
        await client.messageFlagsRemove('3', ['\\Seen']);
        await client.messageFlagsSet('4', ['\\Answered']);
        assert.deepStrictEqual(await client.search({ seen: true }), [2]);
        assert.deepStrictEqual(await client.search({ keyword: '$Mine' }), [2, 3]);
        const copied = await client.messageCopy('1:2', 'Kept');
        assert.strictEqual(copied.uidMap.size, 2);
        const moved = await client.messageMove('5', 'Kept');
        assert.deepStrictEqual([...moved.uidMap.keys()], [5]);
        assert.ok(await client.messageDelete('6', { uid: true }));
        assert.strictEqual(client.mailbox.exists, 4);

        // A delivery is reported within IDLE, which imapflow enters by itself or by idle().
        const reported = new Promise((resolve, reject) => {
            const timer = setTimeout(() => reject(new Error('no EXISTS within 10 s')), 10000);
            client.on('exists', data => { clearTimeout(timer); resolve(data); });
        });
        const idling = client.idle();
        await new Promise(resolve => setTimeout(resolve, 200));
        const began = Date.now();
        fs.writeFileSync(`${maildir}/tmp/late`, message('late'));
        fs.renameSync(`${maildir}/tmp/late`, `${maildir}/new/1900000000.late.host`);
        const data = await reported;
        assert.ok(Date.now() - began < 1000, `reported after ${Date.now() - began} ms`);
        assert.strictEqual(data.count, 5);
        await client.noop(); // breaks IDLE
        await idling;
        assert.strictEqual((await client.fetchOne('*', { envelope: true })).envelope.subject, 'late');
    } finally {
        lock.release();
    }
    await client.mailboxDelete('Bonn');
    await assert.rejects(client.mailboxOpen('Bonn'));
    await client.logout();

    const wrong = new ImapFlow({ ...options, auth: { user, pass: 'wrong' } });
    wrong.on('error', () => {});
    await assert.rejects(wrong.connect(), error => error.authenticationFailed);
}

// A timer of imapflow 1 would keep the process alive for a minute after its connections have ended.
main().then(() => console.log('done') || process.exit(0), error => { console.error(error); process.exit(1); });
