"""Twenty calls; they all return, even when one server of several is stopped meanwhile."""

import hashlib

from amphora import AmqpRpcClient

client = AmqpRpcClient('passwords')

passwords = [f'secret {number}' for number in range(20)]
results = [client.defer.digest(password) for password in passwords]

for password, result in zip(passwords, results, strict=True):
    expected = hashlib.pbkdf2_hmac('sha256', password.encode(), b'amphora', 200_000).hex()
    print(password, 'is right' if result.get() == expected else 'is wrong', flush=True)

client.stop()
