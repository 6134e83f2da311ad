# Uses most functions of Ruby's Net::IMAP against one server: ruby netimap.rb PORT USER PASSWORD MAILDIR CERTIFICATE
# Ruby 3.1 has version 0.2, Ruby 3.4 has 0.5: the script uses only what both have.
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

def assert_equal(expected, found)
  raise RuntimeError, "expected #{expected.inspect}, found #{found.inspect}", caller unless expected == found
end

def assert_refused(code)
  yield
  raise "not refused: #{code}"
rescue Net::IMAP::NoResponseError => e
  # Other servers need not name the reason.
  assert_equal(code, e.response.data.code.name) unless ENV['OTHER_SERVER'] && !e.response.data.code
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
assert_refused('AUTHENTICATIONFAILED') { imap.login(USER, 'wr"o\\ng') }
imap.login(USER, PASSWORD)
assert_equal([['', '/']], imap.namespace.personal.map { |namespace| [namespace.prefix, namespace.delim] }) if imap.respond_to?(:namespace)
other = connect
other.authenticate('PLAIN', USER, PASSWORD)

NAMES.each do |name|
  box = Net::IMAP.encode_utf7(name)
  imap.create(box)
  imap.subscribe(box)
  imap.append(box, message('a'), [:Seen, '$kw'], Time.at(1_000_000_000))
  assert_equal({ 'MESSAGES' => 1, 'UNSEEN' => 0, 'UIDNEXT' => 2 }, imap.status(box, %w[MESSAGES UNSEEN UIDNEXT]))
  imap.examine(box)
  assert_equal([{ 'UID' => 1, 'INTERNALDATE' => '09-Sep-2001 01:46:40 +0000', 'FLAGS' => [:Seen, '$kw'] }],
       fetch(imap, 1, 'UID', 'INTERNALDATE', 'FLAGS').each { |items| items['FLAGS'] -= [:Recent] })
end
decoded = ->(list) { list.map { |box| Net::IMAP.decode_utf7(box.name) }.sort }
assert_equal(['INBOX', 'Thousand', 'Work', *NAMES].sort, decoded.(imap.list('', '*')))
assert_equal(NAMES.sort, decoded.(imap.lsub('', '*')))
imap.rename(Net::IMAP.encode_utf7('Köln'), 'Kept')
imap.delete(Net::IMAP.encode_utf7('x&y'))
assert_refused('NONEXISTENT') { imap.select(Net::IMAP.encode_utf7('x&y')) }
assert_equal('', imap.getquotaroot('INBOX').last.mailbox) if imap.capability.include?('QUOTA')

[NESTED, EIGHT_BIT, message('c'), message('d')].each { |text| imap.append('INBOX', text) }
imap.select('INBOX')
nested, raw, = fetch(imap, 1..-1, 'ENVELOPE', 'BODYSTRUCTURE', 'BODY', 'RFC822.SIZE', 'BODY.PEEK[]')
assert_equal([NESTED, EIGHT_BIT], [nested, raw].map { |items| items['BODY[]'].b })
assert_equal(NESTED.bytesize, nested['RFC822.SIZE'])
assert_equal(['Bob "B"', 'bob', 'example.org'], nested['ENVELOPE'].from[0].to_a.values_at(0, 2, 3))
assert_equal(['friends', 'x', 'z', nil], nested['ENVELOPE'].to.map(&:mailbox))
assert_equal("Gr\xF6\xDFe roh".b, raw['ENVELOPE'].subject.b)
text, attached, inner = nested['BODYSTRUCTURE'].parts
assert_equal(['utf-8', 'a b.bin', 'inner'], [text.param['CHARSET'], attached.disposition.param['FILENAME'], inner.envelope.subject])
assert_equal(['höllo'.b, 'AAEC', "Subject: inner\r\n\r\n", 'deep'],
     fetch(imap, 1, 'BODY[1]', 'BODY[2]', 'BODY[3.HEADER]', 'BODY[3.TEXT]')[0].values_at('BODY[1]', 'BODY[2]', 'BODY[3.HEADER]', 'BODY[3.TEXT]').map(&:b))

{ ['ALL'] => [1, 2, 3, 4], ['NOT', 'SUBJECT', 'c'] => [1, 2, 4], ['OR', 'SEEN', 'BODY', 'deep'] => [1], ['UID', 2..-1, 'LARGER', 10] => [2, 3, 4],
  ['FROM', '"B"'] => [1], ['KEYWORD', '$none'] => [] }.each do |keys, expected|
  next if keys[0] == 'FROM' && ENV['OTHER_SERVER'] # Dovecot searches addresses without the quotation marks
  assert_equal(expected, imap.search(keys).to_a)
  assert_equal(expected, imap.uid_search(keys).to_a)
end
# Only imapshield takes octets that are not UTF-8 for Latin-1.
assert_equal([2], imap.search(['SUBJECT', 'größe'.b], 'UTF-8').to_a) unless ENV['OTHER_SERVER']
assert_equal([1, 2, 4, 3], imap.sort(%w[REVERSE SUBJECT], ['ALL'], 'UTF-8'))
assert_equal(4, imap.uid_thread('REFERENCES', ['ALL'], 'UTF-8').size)

assert_equal([[:Flagged, '$mine']] * 2, imap.store(2..3, '+FLAGS', [:Flagged, '$mine']).map { |data| data.attr['FLAGS'] - %i[Recent Seen] })
imap.uid_store(3, '-FLAGS.SILENT', [:Flagged])
assert_equal([2], imap.search(['FLAGGED']).to_a)
imap.copy(2..3, 'Kept')
imap.uid_move(4, 'Kept')
assert_refused('TRYCREATE') { imap.copy(1, 'missing') }

# In IDLE the client must be notified of another client's mail, flags and expunge, and of a delivery.
other.select('INBOX')
responses = Queue.new
idling = Thread.new { imap.idle { |response| responses << response } }
wait_for = lambda do |name|
  Timeout.timeout(10) do
    response = responses.pop until response.respond_to?(:name) && response.name == name
    response
  end
end
Timeout.timeout(10) { responses.pop } # the continuation
other.append('INBOX', message('e'))
assert_equal(4, wait_for.('EXISTS').data)
other.store(2, '+FLAGS', [:Deleted])
assert_equal(2, wait_for.('FETCH').data.seqno)
other.expunge
assert_equal(2, wait_for.('EXPUNGE').data)
File.binwrite("#{MAILDIR}/tmp/late", message('late'))
File.rename("#{MAILDIR}/tmp/late", "#{MAILDIR}/new/1900000000.late.host")
assert_equal(4, wait_for.('EXISTS').data)
imap.idle_done
idling.join
assert_equal('late', fetch(imap, 4, 'ENVELOPE')[0]['ENVELOPE'].subject)
imap.close

imap.examine('Thousand')
thousand = fetch(imap, 1..-1, 'UID', 'FLAGS', 'ENVELOPE', 'BODYSTRUCTURE', 'BODY.PEEK[]')
assert_equal([1000, 1000], [thousand.size, thousand.count { |items| items['BODYSTRUCTURE'] && items['ENVELOPE'] && items['BODY[]'] }])
[imap, other].each(&:logout)
puts 'done'
