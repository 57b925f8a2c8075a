"""From a delivery to its ack: decode, run, reply, ack; `Answering.answer` is the whole way of one request.

Bytes are the dialect's business, faults of the connection that of `publisher` and `consumer`. Which of a request's
deliveries runs it, and when one is set aside, is decided here; `republishing` moves it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import count
from time import time
from typing import Any

import gevent

from amphora.amqp import Message
from amphora.amqp.content import MAX_MESSAGE_SIZE
from amphora.custody import Custody
from amphora.dead_letters import MAX_DELIVERIES
from amphora.dialects.base import ServerSide, Source, text_of
from amphora.dialects.encoded import Encoded
from amphora.dispatch import FunctionTable, as_exception
from amphora.envelope import Reply
from amphora.errors import IgnoreRequest, RejectRequest, RemoteException, WrongRequest
from amphora.intake import REQUEUE_DELAY, Job
from amphora.logs import get_logger
from amphora.publisher import Publication, Publisher
from amphora.queue_arguments import QueueArguments
from amphora.recent import Key, Recent
from amphora.redelivery import count_deliveries, is_fresh, seems_expired, send_again, time_left, was_ignored
from amphora.republishing import Republishing
from amphora.session import Session

logger = get_logger('amphora.server')

#: how many clients that are gone are remembered, so that each is logged once
GONE_COUNT = 1000
#: how many deliveries of a request may come to grief before it runs alone, among others of its like
ALONE_AFTER = 3
#: class name of the error that the caller of a request that was set aside gets
DEAD_LETTER = 'DeadLetter'
#: what becomes of a request that wants no answer when its function raises
ON_FAILURE = ('reject', 'requeue')
# How much of an error's text a log line or a dead letter's header holds, in characters.
_REASON_LENGTH = 1000
# How often to look whether a request may begin now, in seconds.
_POLL = 0.01
# The answer to a request that wants none.
_DONE = Encoded('', '', {}, b'')


class Answering:
    """Answers the requests of one server that come in one dialect.

    :param service: name of the service.
    :param side: how requests and replies look.
    :param functions: what can be called.
    :param session: the one that the server publishes with.
    :param publisher: publishes the replies.
    :param queue_arguments: arguments that a queue of the service's is declared with.
    :param on_failure: what becomes of a request that wants no answer when its function raises: ``reject`` or
        ``requeue``.
    """

    def __init__(
        self,
        service: str,
        side: ServerSide,
        functions: FunctionTable,
        session: Session,
        publisher: Publisher,
        queue_arguments: QueueArguments,
        on_failure: str,
    ) -> None:
        self._side = side
        self._unique_ids, self._shared = side.unique_ids, side.shared
        self._functions = functions
        self._publisher = publisher
        self._requeues = on_failure == 'requeue'
        self._custody = Custody(session, service, queue_arguments)
        self._republishing = Republishing(service, session, publisher, queue_arguments, side.shared)
        # Requests in hand, until their reply is confirmed: the delivery that runs, and those that came meanwhile and
        # wait for its answer.
        self._in_hand: dict[Key, list[Job]] = {}
        self._recent = Recent()
        # Clients that a reply did not reach.
        self._gone: set[str] = set()
        # Bound once, and not for each request.
        self._return_address, self._decode_request = side.return_address, side.decode_request
        self._encode_reply, self._shorten = side.encode_reply, side.shorten
        self._reply_settled, self._reply_refused = self._on_reply_settled, self._on_reply_refused
        # Makes the keys of requests different where their ids may not be.
        self._numbers = count()

    def sources(self) -> list[Source]:
        """The queues that requests for the functions so far come from."""
        own = self._side.sources()
        for function in self._functions:
            if self._side.functions is None or function in self._side.functions:
                own += self._side.function_sources(function, self._functions.options(function))
        return own

    def is_sole(self, source: Source) -> bool:
        """Whether no other server is to take requests from a queue."""
        return not self._shared and source in self._side.sources()

    # -- one request ---------------------------------------------------------------------------------------------------

    def answer(self, job: Job) -> None:
        """Answer a request; it is acked when the broker has the reply."""
        if job.recalled and not job.alone:
            # Its intake was told to finish after it had come, and before it could begin.
            job.give_back()
            return
        properties = job.properties
        id, reply_to = self._return_address(properties)
        if id is None or (reply_to is None and not self._side.is_task(properties)):
            logger.warning('a request without a usable id or reply_to is dropped: nobody could be told of its result')
            job.drop()
            return
        # Begin nothing while too many replies wait for the broker: those that came before are not acked either, so it
        # sends no more than the prefetch.
        if self._publisher.full and not _wait(job, self._has_room):
            job.give_back()
            return
        key = (reply_to or '', id)
        if not self._unique_ids:
            key = (key[0], '%s #%d' % (id, next(self._numbers)))
        if key in self._in_hand:
            self._join(key, job)
            return
        try:
            answer = self._remembered(key, properties)
            if answer is None and self._shared and (job.redelivered or not is_fresh(properties, time())):
                if self._divert(job, id):
                    return
                # This delivery has waited: another of the same request may be running by now, or have run.
                if key in self._in_hand:
                    self._join(key, job)
                    return
                answer = self._remembered(key, properties)
            if not job.begin():
                self._republishing.pass_on([job])
                return
            self._in_hand[key] = [job]
            if answer is None:
                try:
                    answer = self._run(id, reply_to, job)
                except IgnoreRequest:
                    self._ignore(key, job)
                    return
                except RejectRequest as error:
                    self._reject(key, job, error)
                    return
            if self._unique_ids:
                self._recent.remember(key, answer if answer is _DONE else self._shorten(answer))
            self._reply(key, answer)
        except BaseException:
            # Ctrl-C, or a mistake of ours: another server may do better.
            for each in self._in_hand.pop(key, (job,)):
                if not each.ended:
                    each.give_back()
            raise

    def _remembered(self, key: Key, properties: dict[str, Any]) -> Encoded | None:
        """The answer to a request that was answered lately."""
        remembered: Any = self._recent.get(key)
        if remembered is None:
            return None
        logger.debug('request %.100r came again: answered from memory', key[1])
        return _DONE if remembered is _DONE else self._side.restore(remembered, properties)

    def _has_room(self) -> bool:
        return not self._publisher.full

    def _join(self, key: Key, job: Job) -> None:
        """The request is in hand already: this delivery of it ends as that one does."""
        jobs = self._in_hand[key]
        logger.debug('request %.100r came again before it was answered', key[1])
        # It came again because the channel of an earlier delivery has ended: no need to keep that one.
        for each in [each for each in jobs if each.stale]:
            jobs.remove(each)
            each.done()
        jobs.append(job)

    def _run(self, id: str, reply_to: str | None, job: Job) -> Encoded:
        """The reply to a request.

        :raises IgnoreRequest: it is to be left to another server.
        :raises RejectRequest: it is to be set aside.
        """
        properties = job.properties
        try:
            request = self._decode_request(properties, job.body, job.function)
            seconds = time_left(properties, time()) if request.function in self._functions.async_names else None
            reply = self._functions.invoke(request, seconds)
        except WrongRequest as error:
            logger.warning('a request that makes no sense, from %.100r: %s', reply_to, _text_of(error))
            reply = Reply(id, error=error)
        try:
            if reply_to is None:
                return self._task_done(reply)
            encoded = self._encode_reply(reply, properties)
            if len(encoded.body) > MAX_MESSAGE_SIZE:
                raise ValueError(
                    'the result takes %d bytes; a message holds at most %d' % (len(encoded.body), MAX_MESSAGE_SIZE)
                )
            return encoded
        except (IgnoreRequest, RejectRequest, KeyboardInterrupt):
            raise
        except BaseException as error:  # of the result's own code: the function has run, and is not to run again
            logger.error('the reply to request %.100r cannot be sent: %s', id, _text_of(error))
            return self._encode_error(job, as_exception(error))
        finally:
            # The traceback of its error leads back to this frame: a circle that would keep the whole request in memory
            # until the garbage is collected.
            del reply

    def _task_done(self, reply: Reply) -> Encoded:
        if reply.error is None:
            return _DONE
        if self._requeues and not isinstance(reply.error, WrongRequest):  # which it would be the next time, too
            raise IgnoreRequest
        raise RejectRequest('%s: %s' % (type(reply.error).__name__, _text_of(reply.error)))

    def _reply(self, key: Key, answer: Encoded, instead: bool = False, end: Callable[[Job], None] = Job.done) -> None:
        """Publish the reply; all deliveries of the request that came until it is confirmed end with it."""
        if answer is _DONE:
            for job in self._in_hand.pop(key):
                end(job)
            return

        self._publish(answer, self._reply_settled, self._reply_refused, (key, end, instead))

    def _on_reply_settled(self, reply: Publication, acked: bool) -> None:
        key, end, _ = reply.context
        for job in self._in_hand.pop(key):
            if acked:
                end(job)
            else:
                job.give_back()
        if not acked:
            logger.warning('the broker refused the reply to request %.100r; it will be tried again', reply.message_id)

    def _on_reply_refused(self, reply: Publication, error: Exception) -> None:
        key, end, instead = reply.context
        if not instead:
            # The broker does not take this one, because of its size for example; its caller shall at least know.
            self._reply(key, self._encode_error(self._in_hand[key][0], error), instead=True, end=end)
            return
        for job in self._in_hand.pop(key):
            job.drop()

    def _publish(
        self,
        message: Encoded,
        on_settled: Callable[[Publication, bool], None] | None = None,
        on_refused: Callable[[Publication, Exception], None] | None = None,
        context: Any = None,
    ) -> None:
        self._publisher.submit(
            Publication(
                message.exchange,
                message.routing_key,
                message.properties,
                message.body,
                None,
                on_settled,
                on_refused,
                True,
                context,
            )
        )

    # -- requests that are not answered, or not now --------------------------------------------------------------------

    def _divert(self, job: Job, id: str) -> bool:
        """Give back, send again, set aside or run alone what is not for this delivery to run; False when it is."""
        properties = job.properties
        if seems_expired(properties, time()):
            if 'expiration' not in properties:
                # It was sent again by a server, whose word is taken for it.
                job.drop()
                return True
            if not job.redelivered:
                # It has waited on its way, most likely because a function has held this process up. The broker is the
                # judge, so that clocks which differ do no harm: it drops what has expired, and delivers the rest again.
                logger.info('request %.100r seems to have expired on its way', id)
                job.give_back()
                return True
        if job.alone or job.stays or not self._republishing.allowed:
            return False
        deliveries = count_deliveries(properties)
        if deliveries >= MAX_DELIVERIES:
            reason = 'delivered %d times, and each time the server ended, or lost the broker, before it had answered'
            reason %= deliveries
            if self._republishing.bury([job], deliveries, reason):
                self._tell(job, RemoteException(DEAD_LETTER, (reason,)))
        elif deliveries >= ALONE_AFTER:
            logger.warning('request %.100r has come to grief %d times: it runs alone', id, deliveries)
            self._custody.run(job, send_again(properties, deliveries + 1, time()), self.answer)
        elif job.redelivered:
            logger.debug('request %.100r was delivered before: it is counted and sent again', id)
            self._republishing.send_again(job, deliveries + 1)
        elif deliveries:
            # If this is the end of the server, the broker shall have the acks of what was sent again: or it would have
            # two of each.
            if _wait(job, self._republishing.copies_so_far()) and job.wait_acked():
                return False
            job.give_back()
        else:
            return False
        return True

    def _ignore(self, key: Key, job: Job) -> None:
        """The function does not want this request; another server's may."""
        if not self._shared:
            for each in self._in_hand.pop(key):
                each.done()
        elif was_ignored(job.properties):
            gevent.spawn_later(REQUEUE_DELAY, lambda: self._republishing.pass_on(self._in_hand.pop(key), ignored=True))
        else:
            self._republishing.pass_on(self._in_hand.pop(key), ignored=True)

    def _reject(self, key: Key, job: Job, error: RejectRequest) -> None:
        """The function wants this request to be set aside; or, when nobody waits for its answer, has failed."""
        told = RemoteException(type(error).__name__, error.args)
        # Where one runs alone, its queue's own way with what is rejected is out of reach.
        if not (self._side.keeps_dead_letters or job.alone):
            logger.warning('a request from queue %s is rejected: %s', job.queue, _text_of(error))
            # The answer first: a queue may send what is rejected back to its caller, for whom the first to come counts.
            wanted = self._side.return_address(job.properties)[1] is not None
            self._reply(key, self._encode_error(job, told) if wanted else _DONE, end=Job.drop)
            return
        jobs = self._in_hand.pop(key)
        text = _text_of(error)
        reason = 'rejected: %s' % text if text else 'rejected, and no reason was given'
        if self._republishing.bury(jobs, count_deliveries(job.properties), reason):
            self._tell(job, told)

    def _tell(self, job: Job, error: Exception) -> None:
        """Answer a request that has ended without running to its end, if anybody waits for an answer."""
        if self._side.return_address(job.properties)[1] is None:
            return
        answer = self._encode_error(job, error)
        if answer is not _DONE:
            self._publish(answer)

    def _encode_error(self, job: Job, error: Exception) -> Encoded:
        """The reply that tells of an error; none when even that cannot be said, in a format of the user's own."""
        properties = job.properties
        id, _ = self._side.return_address(properties)
        try:
            return self._side.encode_reply(Reply(id, error=error), properties)
        except KeyboardInterrupt:
            raise
        except BaseException:
            logger.exception('request %.100r gets no answer: its error cannot be encoded', id)
            return _DONE

    # -- replies that nobody takes -------------------------------------------------------------------------------------

    def on_returned(self, message: Message) -> None:
        """In the hub: a message of this server's was returned."""
        info = message.return_info
        assert info is not None
        if not info.exchange:
            return  # a copy of a request, which goes back to its queue; or a reply to another system's client
        client, id = info.routing_key, message.properties.get('message_id')
        # Once for each client: one that leaves with a thousand calls under way is one piece of news.
        level = logging.DEBUG if client in self._gone else logging.INFO
        logger.log(level, 'client %.100r is gone: nobody takes the reply to request %.100r', client, id)
        if len(self._gone) >= GONE_COUNT:
            self._gone.clear()
        self._gone.add(client)


def _text_of(error: BaseException) -> str:
    """The text of an error as a header and a line of a log take it."""
    return text_of(error)[:_REASON_LENGTH].replace('\n', '\\n')


def _wait(job: Job, condition: Callable[[], bool]) -> bool:
    """Block until a condition is true; False when the request had better go back meanwhile."""
    while not condition():
        if job.stale or job.recalled:
            return False
        gevent.sleep(_POLL)
    return True
