# A day of Ruby's Net::IMAP: ruby netimap.rb PORT USER PASSWORD MAILDIR CERTIFICATE
# Ruby 3.1 has 0.2, Ruby 3.4 has 0.5: only what both have is used.
require 'net/imap'
require 'timeout'

PORT, USER, PASSWORD, MAILDIR, CERTIFICATE = ARGV
NAMES = ['Köln', 'a "b" c', 'with space', 'back\\slash', 'x&y', 'Work/Sub', '日本', '{5}', '(p)', '100%', ']', '012', 'NIL'].freeze
NESTED = <<~MAIL.gsub("\n", "\r\n").b
  Subject: =?utf-8?q?K=C3=B6ln?=
  From: "Bob \\"B\\"" <bob@example.org>
  To: friends: x@y, "Quoted, Name" <z@w>;
  MIME-Version: 1.0
  Content-Type: multipart/mixed; boundary="o"

  --o
  Content-Type: text/plain; charset=utf-8

  höllo
  --o
  Content-Type: application/octet-stream; name="a b.bin"
  Content-Disposition: attachment; filename="a b.bin"
  Content-Transfer-Encoding: base64

  AAEC
  --o
  Content-Type: message/rfc822

  Subject: inner

  deep
  --o--
MAIL
EIGHT_BIT = "Subject: Gr\xF6\xDFe roh\r\nFrom: J\xFCrgen <j@example.org>\r\n\r\n\xC4\xD6\xDC\r\n".b

def message(subject)
  "Subject: #{subject}\r\nFrom: bob@example.org\r\n\r\nhello\r\n".b
end

def same(expected, found)
  raise RuntimeError, "expected #{expected.inspect}, found #{found.inspect}", caller unless expected == found
end

def refused(code)
  yield
  raise "not refused: #{code}"
rescue Net::IMAP::NoResponseError => e
  same(code, e.response.data.code.name)
end

def connect
  Net::IMAP.new('localhost', port: PORT.to_i)
end

def fetch(imap, set, *items)
  imap.fetch(set, items).map(&:attr)
end

imap = connect
imap.starttls({ ca_file: CERTIFICATE, verify_mode: OpenSSL::SSL::VERIFY_PEER }) if Net::IMAP::VERSION < '0.3'
imap.starttls(ca_file: CERTIFICATE) unless Net::IMAP::VERSION < '0.3'
refused('AUTHENTICATIONFAILED') { imap.login(USER, 'wr"o\\ng') }
imap.login(USER, PASSWORD)
same([['', '/']], imap.namespace.personal.map { |one| [one.prefix, one.delim] }) if imap.respond_to?(:namespace)
other = connect
other.authenticate('PLAIN', USER, PASSWORD)

NAMES.each do |name|
  box = Net::IMAP.encode_utf7(name)
  imap.create(box)
  imap.subscribe(box)
  imap.append(box, message('a'), [:Seen, '$kw'], Time.at(1_000_000_000))
  same({ 'MESSAGES' => 1, 'UNSEEN' => 0, 'UIDNEXT' => 2 }, imap.status(box, %w[MESSAGES UNSEEN UIDNEXT]))
  imap.examine(box)
  same([{ 'UID' => 1, 'INTERNALDATE' => '09-Sep-2001 01:46:40 +0000', 'FLAGS' => [:Seen, '$kw'] }],
       fetch(imap, 1, 'UID', 'INTERNALDATE', 'FLAGS').each { |one| one['FLAGS'] -= [:Recent] })
end
decoded = ->(list) { list.map { |box| Net::IMAP.decode_utf7(box.name) }.sort }
same(['INBOX', 'Thousand', 'Work', *NAMES].sort, decoded.(imap.list('', '*')))
same(NAMES.sort, decoded.(imap.lsub('', '*')))
imap.rename(Net::IMAP.encode_utf7('Köln'), 'Kept')
imap.delete(Net::IMAP.encode_utf7('x&y'))
refused('NONEXISTENT') { imap.select(Net::IMAP.encode_utf7('x&y')) }
same('', imap.getquotaroot('INBOX').last.mailbox)

[NESTED, EIGHT_BIT, message('c'), message('d')].each { |one| imap.append('INBOX', one) }
imap.select('INBOX')
nested, raw, = fetch(imap, 1..-1, 'ENVELOPE', 'BODYSTRUCTURE', 'BODY', 'RFC822.SIZE', 'BODY.PEEK[]')
same([NESTED, EIGHT_BIT], [nested, raw].map { |one| one['BODY[]'].b })
same(NESTED.bytesize, nested['RFC822.SIZE'])
same(['Bob "B"', 'bob', 'example.org'], nested['ENVELOPE'].from[0].to_a.values_at(0, 2, 3))
same(['friends', 'x', 'z', nil], nested['ENVELOPE'].to.map(&:mailbox))
same("Gr\xF6\xDFe roh".b, raw['ENVELOPE'].subject.b)
text, attached, inner = nested['BODYSTRUCTURE'].parts
same(['utf-8', 'a b.bin', 'inner'], [text.param['CHARSET'], attached.disposition.param['FILENAME'], inner.envelope.subject])
same(['höllo'.b, 'AAEC', "Subject: inner\r\n\r\n", 'deep'],
     fetch(imap, 1, 'BODY[1]', 'BODY[2]', 'BODY[3.HEADER]', 'BODY[3.TEXT]')[0].values_at('BODY[1]', 'BODY[2]', 'BODY[3.HEADER]', 'BODY[3.TEXT]').map(&:b))

{ ['ALL'] => [1, 2, 3, 4], ['NOT', 'SUBJECT', 'c'] => [1, 2, 4], ['OR', 'SEEN', 'BODY', 'deep'] => [1], ['UID', 2..-1, 'LARGER', 10] => [2, 3, 4],
  ['FROM', '"B"'] => [1], ['KEYWORD', '$none'] => [] }.each do |keys, expected|
  same(expected, imap.search(keys).to_a)
  same(expected, imap.uid_search(keys).to_a)
end
same([2], imap.search(['SUBJECT', 'größe'.b], 'UTF-8').to_a)
same([1, 2, 4, 3], imap.sort(%w[REVERSE SUBJECT], ['ALL'], 'UTF-8'))
same(4, imap.uid_thread('REFERENCES', ['ALL'], 'UTF-8').size)

same([[:Flagged, '$mine']] * 2, imap.store(2..3, '+FLAGS', [:Flagged, '$mine']).map { |one| one.attr['FLAGS'] - %i[Recent Seen] })
imap.uid_store(3, '-FLAGS.SILENT', [:Flagged])
same([2], imap.search(['FLAGGED']).to_a)
imap.copy(2..3, 'Kept')
imap.uid_move(4, 'Kept')
refused('TRYCREATE') { imap.copy(1, 'missing') }

# Another client's mail, flags and expunge are told while it idles, and so is mail that is delivered.
other.select('INBOX')
told = Queue.new
idling = Thread.new { imap.idle { |one| told << one } }
await = lambda do |name|
  Timeout.timeout(10) do
    one = told.pop until one.respond_to?(:name) && one.name == name
    one
  end
end
Timeout.timeout(10) { told.pop } # the continuation
other.append('INBOX', message('e'))
same(4, await.('EXISTS').data)
other.store(2, '+FLAGS', [:Deleted])
same(2, await.('FETCH').data.seqno)
other.expunge
same(2, await.('EXPUNGE').data)
File.binwrite("#{MAILDIR}/tmp/late", message('late'))
File.rename("#{MAILDIR}/tmp/late", "#{MAILDIR}/new/1900000000.late.host")
same(4, await.('EXISTS').data)
imap.idle_done
idling.join
same('late', fetch(imap, 4, 'ENVELOPE')[0]['ENVELOPE'].subject)
imap.close

imap.examine('Thousand')
thousand = fetch(imap, 1..-1, 'UID', 'FLAGS', 'ENVELOPE', 'BODYSTRUCTURE', 'BODY.PEEK[]')
same([1000, 1000], [thousand.size, thousand.count { |one| one['BODYSTRUCTURE'] && one['ENVELOPE'] && one['BODY[]'] }])
[imap, other].each(&:logout)
puts 'done'
