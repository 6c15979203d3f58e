# The same two ends as transfer.py has, for hosts with Perl and without Python.
use strict;
use warnings;
use IO::Socket::IP;
use Socket qw(SOCK_STREAM SOL_SOCKET SO_RCVTIMEO SO_SNDTIMEO IPPROTO_TCP TCP_NODELAY SHUT_WR);
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC);

my ($ROUNDS, $SECONDS, $PATIENCE) = (20, 1.0, 5);
my $CHUNK = "\0" x (256 << 10);

sub failed { print "failed @_\n"; exit }
sub now_ns { return int(clock_gettime(CLOCK_MONOTONIC) * 1e9) }

sub quick {
    my ($conn) = @_;
    setsockopt($conn, SOL_SOCKET, $_, pack("l!l!", $PATIENCE, 0)) for SO_RCVTIMEO, SO_SNDTIMEO;
    setsockopt($conn, IPPROTO_TCP, TCP_NODELAY, 1);
    return $conn;
}

sub got {
    my ($conn, $most) = @_;
    my $bytes = sysread($conn, my $data, $most);
    failed($!) unless defined $bytes;
    return $data;
}

sub put {
    my ($conn, $data) = @_;
    for (my $at = 0; $at < length $data;) {
        my $bytes = syswrite($conn, $data, length($data) - $at, $at);
        failed($!) unless defined $bytes;
        $at += $bytes;
    }
}

sub listen_at {
    my ($addr) = @_;
    my $door = IO::Socket::IP->new(
        LocalHost => $addr, LocalPort => 0, Listen => 1, Type => SOCK_STREAM, Timeout => $PATIENCE,
    ) or failed($@);
    print "port ", $door->sockport, "\n";
    my $conn = quick($door->accept or failed("timed out"));
    close $door;
    for (1 .. $ROUNDS) { put($conn, got($conn, 1)) }
    my ($total, $begun) = (0, now_ns());
    while (my $bytes = length got($conn, length $CHUNK)) { $total += $bytes }
    put($conn, "$total " . (now_ns() - $begun) . "\n");
}

sub send_to {
    my ($addr, $port) = @_;
    my $conn = IO::Socket::IP->new(
        PeerHost => $addr, PeerPort => $port, Type => SOCK_STREAM, Timeout => 3,
    ) or failed($@);
    quick($conn);
    my $best;
    for (1 .. $ROUNDS) {
        my $asked = now_ns();
        put($conn, "x");
        failed("the other end closed") unless length got($conn, 1);
        my $took = now_ns() - $asked;
        $best = $took if !defined $best || $took < $best;
    }
    my $end = now_ns() + $SECONDS * 1e9;
    put($conn, $CHUNK) while now_ns() < $end;
    shutdown($conn, SHUT_WR);
    my $said = got($conn, 100);
    chomp $said;
    print "moved $best $said\n";
}

$| = 1;
$SIG{PIPE} = "IGNORE";
alarm 4 * $PATIENCE;
my ($end, @where) = @ARGV;
$end eq "listen" ? listen_at(@where) : send_to(@where);
