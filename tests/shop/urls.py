"""The shop's routes in the place of the service's own."""

from django.conf import settings
from django.urls import include, path

from api import Api
from tests.shop import plain
from tests.shop.api import router

api = Api(
    title=settings.NAME, version=settings.VERSION, description="A shop for tests.", urls_namespace="shop"
)
api.add_router("", router)
api.add_router("/plain", plain.router)

urlpatterns = [path("api/", api.urls)]

if settings.PROFILE == "silk":
    urlpatterns.append(path("silk/", include("silk.urls")))
if settings.TOOLBAR:
    urlpatterns.append(path("__debug__/", include("debug_toolbar.urls")))

handler400 = "api.problems.bad_request"
handler403 = "api.problems.forbidden"
handler404 = "api.problems.not_found"
handler500 = "api.problems.internal_error"
