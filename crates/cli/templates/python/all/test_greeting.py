import unittest

from greeting import greeting


class Greeting(unittest.TestCase):
    def test_a_name_is_greeted(self):
        self.assertEqual(greeting("Ada"), "Hello, Ada!\n")
        self.assertEqual(greeting(None), "Hello, world!\n")
