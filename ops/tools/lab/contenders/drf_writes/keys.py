"""A custom authentication, as in "Authentication" of Django REST framework's API guide."""

from types import SimpleNamespace

from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from ops.tools.lab.contenders.shop.keys import client_of


class ApiKeyAuthentication(BaseAuthentication):
    def authenticate(self, request: Request):
        key = request.headers.get("X-API-Key")
        if key is None:
            return None
        name = client_of(key)
        if name is None:
            raise AuthenticationFailed
        return SimpleNamespace(username=name, is_authenticated=True), key

    def authenticate_header(self, request: Request):
        return "ApiKey"
