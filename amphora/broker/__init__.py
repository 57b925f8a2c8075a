"""An AMQP 0-9-1 broker in the process: for first steps, tests and demos on one machine. Nothing is kept on disk."""
