from amphora.recent import Recent


def test_the_newest_answers_are_kept():
    recent = Recent(count=3)
    answers = [b'%d' % number for number in range(5)]
    for number, answer in enumerate(answers):
        recent.remember(('client', str(number)), answer)

    assert len(recent) == 3
    assert [recent.get(('client', str(number))) for number in range(5)] == [None, None, *answers[2:]]


def test_answers_are_kept_up_to_a_size():
    recent = Recent(size=100)
    for number in range(5):
        recent.remember(('client', str(number)), bytes(40))

    assert [recent.get(('client', str(number))) is None for number in range(5)] == [True, True, True, False, False]


def test_an_answer_beyond_the_size_is_not_kept_and_does_not_take_up_room():
    recent = Recent(size=100)
    recent.remember(('client', 'large'), bytes(101))
    recent.remember(('client', 'small'), bytes(100))

    assert recent.get(('client', 'large')) is None
    assert recent.get(('client', 'small')) == bytes(100)


def test_an_answer_that_is_replaced_gives_its_room_back():
    recent = Recent(size=100)
    for _ in range(10):
        recent.remember(('client', '1'), bytes(90))
    recent.remember(('client', '2'), bytes(10))

    assert len(recent) == 2
