"""What is measured on a trained network; the loop needs none of it."""


def trained_on(data, count):
    """The first images of a :class:`lthcore.data.Split` that are trained on, at most so many, and their labels."""
    places = slice(count) if data.chosen is None else data.chosen[:count]
    return data.train[0][places], data.train[1][places]
