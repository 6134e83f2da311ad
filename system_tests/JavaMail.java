// Uses most functions of JavaMail, with UTF8=ACCEPT (which it enables by itself), QRESYNC and IDLE, against one server:
// java JavaMail.java PORT USER PASSWORD
import com.sun.mail.imap.*;
import java.io.ByteArrayOutputStream;
import java.util.*;
import java.util.concurrent.*;
import java.util.stream.*;
import javax.mail.*;
import javax.mail.event.*;
import javax.mail.internet.*;
import javax.mail.search.*;

public class JavaMail {
    static final String[] NAMES = {
        "K\u00f6ln", "a \"b\" c", "with space", "back\\slash", "x&y", "Work/Sub", "\u65e5\u672c", "{5}", "(p)", "100%", "]", "012", "NIL",
    };
    static final BlockingQueue<String> events = new LinkedBlockingQueue<>();

    interface Attempt {
        void run() throws Exception;
    }

    static void assertRefused(Class<? extends Exception> kind, Attempt attempt) throws Exception {
        try {
            attempt.run();
        } catch (Exception error) {
            if (kind.isInstance(error)) return;
            throw error;
        }
        throw new AssertionError("not refused");
    }

    static void assertEqual(Object expected, Object found) {
        if (!Objects.equals(expected, found)) throw new AssertionError("expected " + expected + ", found " + found);
    }

    static void await(String expected) throws Exception {
        for (String event; (event = events.poll(10, TimeUnit.SECONDS)) == null || !event.equals(expected);)
            if (event == null) throw new AssertionError("no event: " + expected);
    }

    static MimeMessage message(String subject) throws Exception {
        MimeMessage message = new MimeMessage((Session) null);
        message.setFrom(new InternetAddress("bob@example.org", "Bob \"B\"", "UTF-8"));
        message.setSubject(subject, "UTF-8");
        message.setText("h\u00f6llo\r\n", "UTF-8");
        message.saveChanges();
        return message;
    }

    // A message with a text, an attachment and an embedded message.
    static MimeMessage nested() throws Exception {
        MimeMessage message = message("nested");
        MimeBodyPart text = new MimeBodyPart(), attached = new MimeBodyPart(), inner = new MimeBodyPart();
        text.setText("h\u00f6llo", "UTF-8");
        attached.setDataHandler(new javax.activation.DataHandler(
            new javax.mail.util.ByteArrayDataSource(new byte[] {0, 1, 2}, "application/octet-stream")));
        attached.setFileName("a \"b\".bin");
        inner.setContent(message("inner"), "message/rfc822");
        message.setContent(new MimeMultipart(text, attached, inner));
        message.saveChanges();
        return message;
    }

    static byte[] bytes(Message message) throws Exception {
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        message.writeTo(out);
        return out.toByteArray();
    }

    static List<Integer> numbers(Message[] messages) {
        return Stream.of(messages).map(Message::getMessageNumber).collect(Collectors.toList());
    }

    static Set<String> names(Folder[] folders) {
        return Stream.of(folders).map(Folder::getFullName).collect(Collectors.toSet());
    }

    public static void main(String[] args) throws Exception {
        Properties properties = new Properties();
        Map.of("host", "127.0.0.1", "port", args[0], "starttls.required", "true", "ssl.trust", "*", "usesocketchannels", "true", "timeout", "20000")
            .forEach((name, value) -> properties.put("mail.imap." + name, value));
        Session session = Session.getInstance(properties);
        // IdleManager requires socket channels, which do not support STARTTLS.
        Properties clear = new Properties();
        clear.putAll(properties);
        clear.remove("mail.imap.starttls.required");
        assertRefused(AuthenticationFailedException.class, () -> session.getStore("imap").connect(args[1], "wr\"o\\ng"));
        IMAPStore store = (IMAPStore) session.getStore("imap"), other = (IMAPStore) session.getStore("imap");
        store.connect(args[1], args[2]);
        other.connect(args[1], args[2]);

        for (String name : NAMES) {
            IMAPFolder folder = (IMAPFolder) store.getFolder(name);
            assertEqual(true, folder.create(Folder.HOLDS_MESSAGES | Folder.HOLDS_FOLDERS));
            folder.setSubscribed(true);
            assertEqual(1L, folder.appendUIDMessages(new Message[] {message("a"), message("\u00fc")})[0].uid);
            assertEqual(List.of(2, 2, 3L), List.of(folder.getMessageCount(), folder.getUnreadMessageCount(), folder.getUIDNext()));
            folder.open(Folder.READ_ONLY);
            assertEqual("\u00fc", folder.getMessage(2).getSubject());
            folder.close(false);
        }
        Set<String> all = new HashSet<>(List.of(NAMES));
        assertEqual(all, names(store.getDefaultFolder().listSubscribed("*")));
        all.addAll(List.of("INBOX", "Thousand", "Work"));
        assertEqual(all, names(store.getDefaultFolder().list("*")));
        assertEqual(Set.of("Work/Sub"), names(store.getFolder("Work").list()));
        assertEqual(true, store.getFolder("K\u00f6ln").renameTo(store.getFolder("Kept")));
        assertEqual(true, store.getFolder("x&y").delete(true));
        assertRefused(FolderNotFoundException.class, () -> store.getFolder("x&y").open(Folder.READ_ONLY));

        IMAPFolder inbox = (IMAPFolder) store.getFolder("INBOX"), kept = (IMAPFolder) store.getFolder("Kept");
        MimeMessage nested = nested();
        inbox.appendMessages(new Message[] {nested, message("b"), message("c"), message("d")});
        inbox.open(Folder.READ_WRITE);
        FetchProfile profile = new FetchProfile();
        for (FetchProfile.Item item : List.of(FetchProfile.Item.ENVELOPE, FetchProfile.Item.CONTENT_INFO, FetchProfile.Item.FLAGS,
                FetchProfile.Item.SIZE, UIDFolder.FetchProfileItem.UID, IMAPFolder.FetchProfileItem.INTERNALDATE)) profile.add(item);
        profile.add("Subject");
        inbox.fetch(inbox.getMessages(), profile);
        IMAPMessage first = (IMAPMessage) inbox.getMessage(1);
        assertEqual(List.of("nested", nested.getMessageID(), bytes(nested).length), List.of(first.getSubject(), first.getMessageID(), first.getSize()));
        assertEqual("Bob \"B\"", ((InternetAddress) first.getFrom()[0]).getPersonal());
        assertEqual(true, Arrays.equals(bytes(nested), bytes(first)));
        Multipart parts = (Multipart) first.getContent();
        assertEqual(List.of("h\u00f6llo", "a \"b\".bin"), List.of(parts.getBodyPart(0).getContent(), parts.getBodyPart(1).getFileName()));
        assertEqual(true, Arrays.equals(new byte[] {0, 1, 2}, parts.getBodyPart(1).getInputStream().readAllBytes()));
        assertEqual("inner", ((Message) parts.getBodyPart(2).getContent()).getSubject());

        assertEqual(List.of(2, 3, 4), numbers(inbox.search(new NotTerm(new SubjectTerm("nested")))));
        assertEqual(List.of(1, 4), numbers(inbox.search(new OrTerm(new BodyTerm("inner"), new SubjectTerm("d")))));
        assertEqual(List.of(), numbers(inbox.search(new SubjectTerm("Größe"))));  // sent as Latin-1 in spite of UTF8=ACCEPT
        assertEqual(List.of(1), numbers(inbox.search(new MessageIDTerm(nested.getMessageID()))));
        assertEqual(List.of(1, 2, 3, 4), numbers(inbox.search(new AndTerm(new YoungerTerm(86400), new ModifiedSinceTerm(1)))));
        assertEqual(List.of(1, 4, 3, 2), numbers(inbox.getSortedMessages(new SortTerm[] {SortTerm.REVERSE, SortTerm.SUBJECT})));

        inbox.setFlags(2, 3, new Flags(Flags.Flag.FLAGGED), true);
        inbox.setFlags(new int[] {3}, new Flags("$mine"), true);
        inbox.setFlags(new int[] {3}, new Flags(Flags.Flag.FLAGGED), false);
        assertEqual(List.of(2), numbers(inbox.search(new FlagTerm(new Flags(Flags.Flag.FLAGGED), true))));
        assertEqual(3L, inbox.copyUIDMessages(inbox.getMessages(2, 3), kept)[0].uid);
        assertEqual(5L, inbox.moveUIDMessages(inbox.getMessages(4, 4), kept)[0].uid);
        inbox.expunge();
        assertEqual(3, inbox.getMessageCount());
        long validity = inbox.getUIDValidity(), modseq = inbox.getHighestModSeq();
        inbox.close(false);

        // In IDLE the client must be notified of another client's mail, flags and expunge.
        IMAPStore idle = (IMAPStore) Session.getInstance(clear).getStore("imap");
        idle.connect(args[1], args[2]);
        IMAPFolder watched = (IMAPFolder) idle.getFolder("INBOX"), changed = (IMAPFolder) other.getFolder("INBOX");
        watched.open(Folder.READ_ONLY);
        changed.open(Folder.READ_WRITE);
        ExecutorService threads = Executors.newCachedThreadPool();
        IdleManager manager = new IdleManager(Session.getInstance(clear), threads);
        watched.addMessageCountListener(new MessageCountAdapter() {
            public void messagesAdded(MessageCountEvent event) {
                events.add("added " + event.getMessages().length);
            }

            public void messagesRemoved(MessageCountEvent event) {
                events.add("removed " + event.getMessages()[0].getMessageNumber());
            }
        });
        watched.addMessageChangedListener(event -> events.add("changed " + event.getMessage().getMessageNumber()));
        manager.watch(watched);
        changed.appendMessages(new Message[] {message("e")});
        await("added 1");
        manager.watch(watched);
        changed.getMessage(2).setFlag(Flags.Flag.DELETED, true);
        await("changed 2");
        manager.watch(watched);
        changed.expunge();
        await("removed 2");
        assertEqual("e", watched.getMessage(watched.getMessageCount()).getSubject());
        manager.stop();
        threads.shutdown();

        // After a reconnection with QRESYNC, the expunged message is reported as vanished.
        int vanished = 0;
        for (MailEvent event : inbox.open(Folder.READ_WRITE, new ResyncData(validity, modseq)))
            if (event instanceof MessageVanishedEvent) {
                List<Long> uids = LongStream.of(((MessageVanishedEvent) event).getUIDs()).boxed().collect(Collectors.toList());
                // imapshield has told the client of a modification sequence after MOVE, so that this is not repeated.
                assertEqual(true, uids.equals(List.of(2L)) || System.getenv("OTHER_SERVER") != null && uids.equals(List.of(2L, 4L)));
                vanished++;
            }
        assertEqual(1, vanished);

        IMAPFolder thousand = (IMAPFolder) store.getFolder("Thousand");
        thousand.open(Folder.READ_ONLY);
        profile.add(IMAPFolder.FetchProfileItem.MESSAGE);
        thousand.fetch(thousand.getMessages(), profile);
        int count = 0;
        for (Message message : thousand.getMessages())
            if (message.getContentType() != null && bytes(message).length == message.getSize()) count++;
        assertEqual(1000, count);
        for (Store open : List.of(store, other, idle)) open.close();
        System.out.println("done");
    }
}
