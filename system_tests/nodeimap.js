// Uses most functions of npm's imap against one server: node nodeimap.js PORT USER PASSWORD MAILDIR
'use strict';
const assert = require('node:assert');
const fs = require('node:fs');
const { once } = require('node:events');
const Imap = require('imap');

const [port, user, password, maildir] = process.argv.slice(2);
const options = { user, password, host: '127.0.0.1', port: Number(port) };
const message = subject => `Subject: ${subject}\r\nFrom: bob@example.org\r\n\r\nhello\r\n`;
const nested = [
    'Subject: =?utf-8?q?K=C3=B6ln?=', 'From: "Bob \\"B\\"" <bob@example.org>', 'MIME-Version: 1.0',
    'Content-Type: multipart/mixed; boundary="o"', '', '--o', 'Content-Type: text/plain; charset=utf-8', '', 'höllo', '--o',
    'Content-Type: application/octet-stream; name="a b.bin"', 'Content-Disposition: attachment',
    'Content-Transfer-Encoding: base64', '', 'AAEC', '--o', 'Content-Type: message/rfc822', '', 'Subject: inner', '', 'deep', '--o--', '',
].join('\r\n');
// The client ends an atom at a bracket, reads 012 as 12, and ends a string at its second quotation mark. imapshield sends
// these names as it can read them; other servers do not.
const foreign = Boolean(process.env.OTHER_SERVER);
const names = ['Köln', 'with space', 'x&y', 'Work', '日本', '{5}', '(p)', '100%', 'NIL',
    ...foreign ? [] : ['a "b" c', 'back\\slash', '[Gmail]', ']', '012']];

const call = (client, name, ...args) => new Promise((resolve, reject) =>
    client[name](...args, (error, ...result) => error ? reject(error) : resolve(result[0])));

async function connect(more) {
    const client = new Imap({ ...options, ...more });
    client.connect();
    await once(client, 'ready');
    return client;
}

// Returns the attributes and bodies of each message, in order; each body must have the size that was announced.
function fetched(request) {
    return new Promise((resolve, reject) => {
        const messages = [];
        request.on('message', message => {
            const found = { bodies: {} };
            messages.push(found);
            message.on('attributes', attributes => { found.attributes = attributes; });
            message.on('body', (stream, { which, size }) => {
                const chunks = [];
                stream.on('data', chunk => chunks.push(chunk));
                stream.on('end', () => {
                    const body = Buffer.concat(chunks);
                    assert.strictEqual(body.length, size);
                    found.bodies[which] = body.toString('utf8');
                });
            });
        });
        request.once('error', reject);
        request.once('end', () => resolve(messages));
    });
}

async function main() {
    await assert.rejects(connect({ password: 'wr"o\\ng' }), { textCode: 'AUTHENTICATIONFAILED' });
    const client = await connect();
    assert.deepStrictEqual([client.delimiter, client.namespaces.personal[0].prefix], ['/', '']);

    for (const name of names) {
        await call(client, 'addBox', name);
        await call(client, 'subscribeBox', name);
        await call(client, 'append', message('a'), { mailbox: name, flags: ['Seen', '$kw'], date: new Date(1e12) });
        const { messages, uidnext } = await call(client, 'status', name);
        assert.deepStrictEqual([messages.total, messages.unseen, uidnext], [1, 0, 2], name);
        const box = await call(client, 'openBox', name, true);
        assert.deepStrictEqual([box.name, box.messages.total, box.readOnly, box.flags.includes('$kw')], [name, 1, true, true]);
    }
    assert.deepStrictEqual(Object.keys(await call(client, 'getBoxes')).sort(), ['INBOX', 'Thousand', ...names].sort());
    assert.deepStrictEqual(Object.keys(await call(client, 'getSubscribedBoxes')).sort(), [...names].sort());
    await call(client, 'renameBox', 'Köln', 'Kept');
    await call(client, 'delBox', 'x&y');
    await assert.rejects(call(client, 'openBox', 'x&y'), foreign ? Error : { textCode: 'NONEXISTENT' });

    for (const text of [nested, message('b'), message('c'), message('d')]) await call(client, 'append', text, { mailbox: 'INBOX' });
    const box = await call(client, 'openBox', 'INBOX');
    assert.deepStrictEqual([box.messages.total, box.readOnly], [4, false]);
    const [first, second] = await fetched(client.seq.fetch('1:2', {
        bodies: ['', 'HEADER.FIELDS (SUBJECT)', 'TEXT'], struct: true, envelope: true, size: true,
    }));
    assert.deepStrictEqual([first.bodies[''], second.bodies['']], [nested, message('b')]);
    assert.strictEqual(second.bodies['HEADER.FIELDS (SUBJECT)'], 'Subject: b\r\n\r\n');
    assert.strictEqual(second.bodies.TEXT, 'hello\r\n');
    assert.deepStrictEqual([first.attributes.envelope.subject, first.attributes.envelope.from[0].name], ['Köln', 'Bob "B"']);
    assert.strictEqual(first.attributes.size, Buffer.byteLength(nested));
    const [multipart, [text], [attached], [inner]] = first.attributes.struct;
    assert.deepStrictEqual([multipart.type, text.partID, attached.params.name, inner.envelope.subject], ['mixed', '1', 'a b.bin', 'inner']);
    const [parts] = await fetched(client.fetch(1, { bodies: ['1', '2', '3.HEADER', '3.TEXT', '9'] }));
    const { 9: absent = '', ...bodies } = parts.bodies; // of NIL the client reports nothing
    assert.deepStrictEqual([absent, bodies], ['', { 1: 'höllo', 2: 'AAEC', '3.HEADER': 'Subject: inner\r\n\r\n', '3.TEXT': 'deep' }]);

    for (const [query, expected] of [
        [['ALL'], [1, 2, 3, 4]], [[['SUBJECT', 'Köln']], [1]], [[['!SUBJECT', 'b']], [1, 3, 4]], [[['OR', 'SEEN', ['BODY', 'deep']]], [1]],
        [[['SINCE', 'January 1, 2020'], ['UID', '2:*'], ['LARGER', 10]], [2, 3, 4]], [[['KEYWORD', '$none']], []],
    ]) assert.deepStrictEqual(await call(client, 'search', query), expected, JSON.stringify(query));
    assert.deepStrictEqual(await call(client, 'sort', ['-SUBJECT'], ['ALL']), [1, 4, 3, 2]);
    assert.strictEqual((await call(client, 'thread', 'REFERENCES', ['ALL'])).length, 4);
    assert.strictEqual((await call(client, 'esearch', ['ALL'], ['COUNT', 'MAX'])).count, 4);

    await call(client, 'addFlags', [2, 3], ['Flagged']);
    await call(client, 'addKeywords', 3, ['$mine']);
    await call(client, 'delFlags', 3, 'Flagged');
    assert.deepStrictEqual(await call(client, 'search', ['FLAGGED']), [2]);
    await call(client, 'copy', '2:3', 'Kept');
    await call(client, 'move', 4, 'Kept');

    // The client enters IDLE by itself. It must be notified of another client's mail, flags and expunge, and of a delivery.
    const other = await connect();
    await call(other, 'openBox', 'INBOX');
    const nextEvent = name => once(client, name, { signal: AbortSignal.timeout(10000) });
    let event = nextEvent('mail');
    await call(other, 'append', message('e'), { mailbox: 'INBOX' });
    assert.deepStrictEqual(await event, [1]);
    event = nextEvent('update');
    await call(other, 'addFlags', 2, ['Deleted']);
    assert.strictEqual((await event)[0], 2);
    event = nextEvent('expunge');
    await call(other, 'expunge', 2);
    assert.deepStrictEqual(await event, [2]);
    event = nextEvent('mail');
    fs.writeFileSync(`${maildir}/tmp/late`, message('late'));
    fs.renameSync(`${maildir}/tmp/late`, `${maildir}/new/1900000000.late.host`);
    await event;
    const [late] = await fetched(client.seq.fetch('*', { bodies: 'HEADER.FIELDS (SUBJECT)' }));
    assert.strictEqual(late.bodies['HEADER.FIELDS (SUBJECT)'], 'Subject: late\r\n\r\n');

    await call(client, 'openBox', 'Thousand');
    const thousand = await fetched(client.seq.fetch('1:*', { bodies: '', struct: true, envelope: true }));
    assert.deepStrictEqual([thousand.length, thousand.filter(({ attributes, bodies }) => attributes.struct && bodies['']).length], [1000, 1000]);
    for (const connection of [client, other]) {
        connection.end();
        await once(connection, 'end');
    }
    console.log('done');
}

main().catch(error => {
    console.error(error);
    process.exit(1);
});
